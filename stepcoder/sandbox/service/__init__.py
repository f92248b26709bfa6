"""The sandbox behind HTTP: `stepcoder sandbox serve`.

`app` is the interface, `intake` what is taken and what is refused, `serve` the process. The judging itself is that of
the pool; the client is `stepcoder.sandbox.remote`. Only this room imports FastAPI and uvicorn.
"""
