import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from training.pretraining.features import LogMel


def test_a_batch_has_whispers_features_but_for_the_last_frames() -> None:
    random = np.random.default_rng(1)
    clips = [random.normal(0, 0.1, count).astype(np.float32) for count in (16000, 11200)]
    extractor = WhisperFeatureExtractor(feature_size=80, hop_length=320, n_fft=400)
    features, lengths = LogMel(extractor)(clips)
    assert lengths.tolist() == [50, 35]
    for row, clip, count in zip(features, clips, lengths.tolist(), strict=True):
        expected = extractor(clip, sampling_rate=16000, padding="do_not_pad", return_tensors="pt")
        reference = expected.input_features[0][:, :count]
        torch.testing.assert_close(row[:, : count - 1], reference[:, :-1], atol=1e-4, rtol=1e-4)
        assert not row[:, count:].any()
