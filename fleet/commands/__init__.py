"""The commands of `fleet`, one file a group; each parses, calls the client, and shows."""
