//! What must hold for any bytes given to the decoders of `tholos-cluster`.

use tholos_cluster::{Answer, ClusterMap, Question};

/// The map, and the question and answer of genesis: what is read is valid, and is written as the same bytes.
pub fn cluster_map(bytes: &[u8]) {
    if let Ok(map) = ClusterMap::decode(bytes) {
        assert_eq!(map.check(), Ok(()));
        assert_eq!(map.encode(), bytes);
    }
    if let Ok(question) = Question::decode(bytes) {
        assert_eq!(question.encode(), bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(answer.encode(), bytes);
    }
}
