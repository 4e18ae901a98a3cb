"""Room in Redis's memory: ended jobs go before their time where one tenant keeps too many."""
