"""Predict on a Spark cluster: a trained run on the partitions of a DataFrame of images.

python examples/spark_predict.py runs/birds /data/photos /data/answers

Needs PySpark and a Java runtime. RUN is a path that every machine can read under the same name; the images and the
answers are folders or URLs that Spark can read and write.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence

import pandas as pd
from pyspark.sql import SparkSession

from longtail.predict import Predictor

COLUMNS = "path string, prediction string, confidence double, label_1 string, probability_1 double, problem string"


def predictions(run: str) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return the function for ``mapInPandas``: it reads the run once for each task, not for each batch."""

    def predict(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        predictor = Predictor(run, top_k=1)
        for batch in batches:
            rows = predictor({name: batch[name].to_numpy() for name in batch.columns})
            yield pd.DataFrame(rows)[COLUMNS.replace(" string", "").replace(" double", "").split(", ")]

    return predict


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a folder of Parquet files with a row for each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="RUN folder of longtail train")
    parser.add_argument("images", help="folder of images, with their subfolders")
    parser.add_argument("answers", help="folder to write")
    words = parser.parse_args(arguments)
    spark = SparkSession.builder.appName("longtail").getOrCreate()
    photos = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(words.images)
    # Decoded images are large: a few hundred encoded ones at a time are enough.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "256")
    batches = photos.selectExpr("path", "content as bytes")
    batches.mapInPandas(predictions(words.run), COLUMNS).write.parquet(words.answers)


if __name__ == "__main__":
    main()
