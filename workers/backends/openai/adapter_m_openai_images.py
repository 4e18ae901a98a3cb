"""OpenAI-shaped servers that make images, too: POST /images/generations and /images/edits."""

from contextlib import aclosing

from contract.events import Done, Image, Phase
from contract.images import ImageRequest
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.images import Images, to_image
from workers.backends.openai.shapes import PAINTED
from workers.backends.protocols import Stream


class OpenAIImages(OpenAI):
    """A server of OpenAI's shape that has its endpoints for images."""

    async def image(self, request: ImageRequest) -> Stream[Phase | Image | Done]:
        """From words, or from words and an image; previews come where they were asked for."""
        body = to_image(self._own(request), self.dialect.type)
        path = "/images/edits" if request.image else "/images/generations"
        images = Images(request)
        async with (
            self._asked(path, body.content, body.accept) as answer,
            aclosing(self._chunks(answer)) as items,
        ):
            async for item in items:
                for image in images.read(PAINTED.read(item or {})):
                    yield image
        yield Done(usage=images.usage(), ignored=body.ignored)
