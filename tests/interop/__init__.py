"""Tests with the programs of others: SIP phones and servers that use the relay as they would any."""
