# SPDX-License-Identifier: Apache-2.0
"""One function over many machines on many hosts: what a worker does, which functions there are, who keeps the books.

``look`` tells a host's machines, ``functions`` are what is run on one, ``job`` runs it and bounds what comes of it:
these work where the machines are. ``fleet`` keeps the books of which machine is done, by ``calls`` of workers: of
Dask distributed (``cluster``), or of this process (``alone``).
"""
