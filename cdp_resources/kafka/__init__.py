"""Kafka: the topic that collectors write to when one is declared, and topics of others that are read.

The library is imported inside functions, so that who declares no Kafka never loads it.
"""
