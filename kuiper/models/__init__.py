"""Networks: functions `name(shape, classes, **params) -> nn.Module` that output logits (B, classes).

Initial weights come from torch's global generator, which the caller keys by the job's seed. The
modules hold no state between calls but their parameters and, for some of torchvision's, buffers.
"""
