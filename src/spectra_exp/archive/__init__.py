"""Runs packed into one file that tables, figures, tests and the report read like the folders of the runs."""
