"""A campaign: the best networks that a machine can train within a time limit.

Members are trained first, side by side. The best of them, chosen on val, teach three students and a small network. An
ensemble is chosen among all networks on val. Test is evaluated at the end.
"""
