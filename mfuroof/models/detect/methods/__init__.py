"""One reader per quantisation method, and the table that finds them."""
