"""The code of the processes that hold programs: standard library only, nothing of the trainer is imported here.

`zygote` is started by exec and forks; `child` is what a fork does; `probes` records executed statements.
Neither expected outputs nor credentials ever enter these processes.
"""
