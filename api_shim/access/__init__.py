"""What a key may do: the permission that each route requires, and the gate that demands it."""
