"""What jobs use: counted from their events, settled into a ledger, and limited by tenant."""
