//! Journal ▸ Kafka ▸ Parquet with the real binary, against the cluster of the harness.
