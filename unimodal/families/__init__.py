"""Published unified models: each family's layout, parts and files, read as they were released."""
