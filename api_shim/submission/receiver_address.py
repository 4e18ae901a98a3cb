"""Where webhooks are posted: what is refused as soon as an address is named."""

from contract.errors import InvalidRequest
from outbound.public_web import AddressRefused, NotPublic, allowed_address


def check_address(url: str, field: str, *, private: bool) -> None:
    """Raise InvalidRequest for an address to which nothing will be posted.

    A name is judged when it is resolved. `private` permits addresses that are not public.
    """
    try:
        allowed_address(url, private=private)
    except NotPublic as error:
        raise InvalidRequest(
            f"{field}: {error}; receivers have addresses of the open internet, unless an operator "
            "sets FLEET_PRIVATE_WEBHOOKS=true",
            field=field,
        ) from None
    except AddressRefused as error:
        raise InvalidRequest(f"{field}: {error}", field=field) from None
