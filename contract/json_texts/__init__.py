"""JSON that others have written inside of texts: what it holds, where it ends, and its value."""
