"""JanusConfig holds the sizes of what Janus has beside its transformer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JanusConfig:
    """JanusConfig determines a vision encoder and how codes enter; the defaults are Janus-Pro's."""

    side: int = 384
    """Pixels of a side of the images that are seen."""
    patch: int = 16
    """Pixels of a side of what one vector stands for."""
    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_width: int = 4096
    norm_eps: float = 1e-6
    depth: int = 2
    """Layers between the vision encoder's vectors and the transformer's."""
    code_width: int = 8
    """Numbers of a code's embedding."""
    code_depth: int = 2
    """Layers between a code's embedding and the transformer's vectors."""

    @property
    def num_vectors(self) -> int:
        """Return how many vectors an image that is seen has."""
        return (self.side // self.patch) ** 2

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [f"{name} {value}: above 0" for name, value in vars(self).items() if value <= 0]
        if not found and self.width % self.num_heads:
            found.append(f"num_heads {self.num_heads}: must divide width {self.width}")
        if not found and self.side % self.patch:
            found.append(f"patch {self.patch}: must divide side {self.side}")
        return found
