"""What the demonstration needs: sentences a reader can judge, and a model small enough to carry."""
