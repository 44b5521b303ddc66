"""Runs between organisations: each site keeps its data and models, and only signed letters leave it.

A site is a Prefect work pool and one worker that joined it. The coordinator's flow sends each stage to the sites'
pools; what passes between agents lies in a store that all can reach. Here are the keys, the letters, what a site does,
and the pool that makes sites the workers of a run.
"""
