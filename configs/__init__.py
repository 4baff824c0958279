"""One YAML file per recipe; read by all, imported by none."""
