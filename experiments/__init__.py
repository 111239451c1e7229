"""The experiments, one folder per question: ``python -m experiments.FOLDER.table``."""
