"""Fast twins of the methods of the same name: a second text over the array namespace, shared by every array library.

A twin exists where a measurement shows why, and its first line says so. The page of the paper is the reference's.
"""
