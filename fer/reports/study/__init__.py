"""The founding study's table and figures."""
