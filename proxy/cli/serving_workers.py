"""`bursar serve --workers N`: the parent's half of the command."""

import sys
from pathlib import Path

from proxy import logs, pidfile
from proxy.config.load import Loaded


async def serve_workers(loaded: Loaded, count: int, config_file: str | None) -> int:
    """Start all, print the banner, wait for a signal, drain all; return the exit code."""
    from accounting.store.errors import StoreError
    from proxy.cli.serve import banner, until_stopped
    from proxy.worker import WorkerError
    from proxy.workers import Workers

    config = loaded.config
    logs.set_up(config.log.level, config.log.format)
    workers = Workers(config, count, config_file=config_file)
    with pidfile.held(Path(config.store.data_dir)):
        try:
            await workers.start()
        except (StoreError, WorkerError, OSError) as error:
            await workers.stop(0)
            what = (
                f"cannot listen: {error.strerror}; set listen: and ops.listen: to free ports"
                if isinstance(error, OSError)
                else error
            )
            print(f"bursar serve: {what}", file=sys.stderr)
            return 1
        await until_stopped(workers, loaded.source, lambda: print(banner(loaded, workers), flush=True))
    return 0
