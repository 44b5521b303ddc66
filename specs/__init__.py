"""What can be said: the schema, the loader that answers mistakes, the recipes and specs that ship."""
