"""What the testbed was asked, a folder per question: ``python -m experiments.FOLDER.table``."""
