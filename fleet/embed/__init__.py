"""`fleet embed`: text files in, files of vectors out."""
