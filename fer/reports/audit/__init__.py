"""The page and the text of an audit."""
