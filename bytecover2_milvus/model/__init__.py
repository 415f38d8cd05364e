"""The network in torch: front end, backbone, PCA-FC, losses. Serving code never imports it."""
