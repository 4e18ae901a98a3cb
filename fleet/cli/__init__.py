"""The `fleet` command: application, terminal output, exit codes."""
