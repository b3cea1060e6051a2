"""Complete voice agents on Pipecat, each in one file that is there to be copied and changed.

Every one has ``build_pipeline(transport, settings)``, which says what it is made of, and
``run(transport, settings)``, which holds one conversation. `tinyvoice agent NAME` runs them.
"""
