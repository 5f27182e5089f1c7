"""Answers a parquet table of pictures with Ray Data, on two actors here or on every machine of a cluster; resumable.

    pip install 'vlinstruct[ray]'
    python examples/ray_data.py pictures.parquet answers/ http://127.0.0.1:8000/v1

The table has the columns `id`, `image` (a path, or the bytes of a file) and `question`. Every block of it becomes a
parquet file with `id`, `status` and `record`; a row with a good record there is not asked again. Without arguments the
table is made of the pictures beside this file.
"""

import sys
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import ray

import vlinstruct as vli

arguments = sys.argv[1:]
if len(arguments) != 3:
    folder, pictures = Path(tempfile.mkdtemp()), sorted((Path(__file__).parent / "pictures").glob("*.png"))
    columns = {"id": [path.name for path in pictures], "image": [path.read_bytes() for path in pictures]}
    columns["question"] = ["what do you see?"] * len(pictures)
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "pictures.parquet")
    arguments = [str(folder / "pictures.parquet"), str(folder / "answers"), "mini"]
table, answers, backbone = arguments

ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
done = set()
if any(Path(answers).glob("*.parquet")):
    earlier = ray.data.read_parquet(answers, columns=["id", "status"])
    done = {row["id"] for row in earlier.iter_rows() if row["status"] == "ok"}
rows = ray.data.read_parquet(table, columns=["id", "image", "question"])
answered = rows.filter(lambda row: row["id"] not in done).map_batches(
    vli.MapBatches,
    fn_constructor_args=(vli.Ask(optimize=True), vli.RunSettings(model=vli.ModelSettings(backbone=backbone))),
    batch_size=32,
    concurrency=2,  # on a cluster (1, 64), and num_gpus=1 for a model that runs in the actor
    num_cpus=0.5,  # what reads the table needs one, too
)
answered.write_parquet(answers)
print(f"{ray.data.read_parquet(answers).count()} records in {answers}, of which {len(done)} were there before")
