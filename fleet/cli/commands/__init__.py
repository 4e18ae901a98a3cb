"""The commands of `fleet`, one module per group: parse options, call the client, print."""
