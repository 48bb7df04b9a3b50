"""Idle threads sleep instead of spinning; imported first by the command lines, before any numerical library.

NumPy's BLAS and torch keep a pool of threads each. While one computes, the other's threads wait in a busy loop: on few
cores, or beside other programs, an alternation of small products of both is then ten times slower.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # two to the power of 4 clock cycles
