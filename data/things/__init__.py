"""Icons with names as a wider world of drawings: their table, drawings with them, and talk of them."""
