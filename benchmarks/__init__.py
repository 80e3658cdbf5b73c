"""Speed and memory beside DCMTK and pynetdicom: ``python -m benchmarks [NAME…]``.

What is measured, and how, so that it may be doubted in the right place:

- Every contestant of a row is measured in one run and in turns (A B C A B C …), five times
  unless ``--runs`` says otherwise; medians are compared, smallest and largest are printed.
- Servers are driven by one and the same lean client, and clients drive one and the same lean
  server (`raw_peer`): blocking sockets and messages that were made beforehand. Both share
  no code with the library.
- Peers run at their best setting (`peers`), warm, with TCP_NODELAY=1. Nothing leaves loopback.
- Files lie on tmpfs where there is one. What a server stored is counted after each run.
- Memory is touched before it is measured: a file of more than the turn's size is written into
  the folder and removed right before the timed part, where the folder is on tmpfs
  (`scratch.warm`). A virtual machine's memory is slow at the first touch.
- Where two programs are measured together (`pairs`), they are timed by the files they leave.
- User and system CPU seconds of the measured processes stand beside each figure.
- ``--profile`` has py-spy look where our programs spend their time (`profiling`).

One file a subject: `echo`, `receive`, `send`, `memory`, `window`, `many`, `tls`, `find`, `get`,
`archive`, `senders`, `associations`, `commands`, `telemetry`. A subject's ``rows(settings)`` gives
its `harness.Row` objects; `rows` lists the subjects.
"""
