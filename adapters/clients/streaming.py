"""The text of a stream that has begun, piece by piece."""

from collections.abc import AsyncGenerator

from adapters.clients.call import ClientCall
from adapters.clients.texts import content_of, finish_of
from adapters.opening import Opened


async def pieces_of(call: ClientCall, begun: Opened) -> AsyncGenerator[str, None]:
    """Yield the text; the meter sees each chunk before its text is yielded. Raises UpstreamError."""
    translator, response, meter = begun.translator, begun.response, call.tries[-1].meter
    assert translator is not None
    assert response is not None
    closed = False
    try:
        while True:
            chunks = translator.take()
            meter.observe(chunks)
            for chunk in chunks:
                call.finish_reason = finish_of(chunk) or call.finish_reason
                if text := content_of(chunk):
                    call.text.append(text)
                    yield text
            if translator.error is not None:
                raise translator.error
            if translator.finished or closed:
                return
            piece = await response.next_piece()
            if piece:
                translator.feed(piece)
            else:
                translator.eof()
                closed = True
    finally:
        response.close()
