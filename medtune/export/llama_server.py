"""llama.cpp's server for one file, on loopback, through xllamacpp.

    python -m medtune.export.llama_server FILE CONTEXT THREADS

serves until its standard input ends. It is a process of its own, since a file that llama.cpp cannot take may
end the one that loads it. Nothing else of medtune is imported: it starts in a moment.
"""

import os
import sys

READY = "serving at "
"""What it says before its address."""


def serve(file: str, context: int, threads: int) -> None:
    """Serve a file on loopback until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx, params.n_parallel = context, 1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_gpu_layers, params.fit_params = 0, False
    params.use_jinja = True
    params.verbosity = 1
    for cpu in (params.cpuparams, params.cpuparams_batch):
        # Threads that wait by spinning take the processor from each other where others work too.
        cpu.n_threads, cpu.poll = threads, 0
    server = xllamacpp.Server(params)
    print(f"{READY}{server.listening_address}", flush=True)
    sys.stdin.read()
    # Its threads need not be waited for.
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
