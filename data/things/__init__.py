"""Icons with names: their table, wide drawings with them, and talk of them."""
