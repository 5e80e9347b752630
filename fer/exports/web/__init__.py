"""A folder that any static host serves, whose page predicts in the tab."""
