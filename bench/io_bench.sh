#!/usr/bin/env bash
# Loading 1, 2 and 4 GiB from shared memory, with veTurboIO and with torch.load. The data files are written first and removed at the
# end, also when interrupted (io_bench.py does both). Takes io_bench.py's options:
#   bash bench/io_bench.sh --touch --end 2
#   bash bench/io_bench.sh --base_dir sfcs://bench --fs_name sfcs
set -euo pipefail
bench=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python=$bench/../.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$bench/io_bench.py" --begin 1 --end 4 --base_dir /dev/shm --fs_name shm "$@"
