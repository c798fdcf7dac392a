"""An estimator outside scikit-learn, as a user's own package would hold it."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class ShareByCode(ClassifierMixin, BaseEstimator):
    """Answers each class's share among the training rows, shrunk by a made strength."""

    def __init__(self, strength=1.0):
        self.strength = strength

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.n_features_in_ = X.shape[1]
        self.shares_ = (counts + self.strength) / (counts + self.strength).sum()
        return self

    def predict_proba(self, X):
        return np.tile(self.shares_, (len(X), 1))

    def predict(self, X):
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]
