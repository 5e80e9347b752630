"""A campaign: networks trained side by side for as long as there is time, the best of them taught to others.

Members are trained first. Val chooses which of them teach. Three students and a small network learn from these, and an
ensemble is chosen among all on val. Test is opened at the end.
"""
