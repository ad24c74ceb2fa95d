"""The page of the report: what it shows as data, and beside it how: template, style and script."""
