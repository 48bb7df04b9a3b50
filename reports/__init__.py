"""The pages: read records and run folders, run nothing, draw what was measured."""
