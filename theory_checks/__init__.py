"""The claims: one function, one statement, one certificate; the same functions judge toys and LLaMA layers."""

from theory_checks.certificate import Certificate, allowance
from theory_checks.certify import certify, certify_saved
from theory_checks.exchange import one_swap_again

__all__ = ["Certificate", "allowance", "certify", "certify_saved", "one_swap_again"]
