"""The page of `medtune demo`: its markup, style and script, which fetch nothing from elsewhere."""
