"""The words that made-up names and titles are drawn from."""

from __future__ import annotations


def _split(text: str, mark: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(mark))


RIGS = _split(
    "anvil amber atlas badger basalt beacon birch bramble bronze candle canyon cedar chalk "
    "cinder clover cobalt comet copper coral crane delta drift ember falcon fern flint forge "
    "glacier granite gull hazel heron indigo jasper juniper kestrel lagoon larch ledger "
    "marble meadow mesa nimbus onyx orchard osprey pebble pepper pine plume quarry quartz "
    "raven reef ripple rowan saffron sparrow spruce summit tallow thistle timber topaz tundra "
    "umbra valley velvet walnut willow yarrow zephyr"
)
PEOPLE = _split(
    "ada alder basil bea brook cleo clio cole dara dell dora edda eli enzo faye finn gale gus "
    "hank hedy ida inga ira ivo jade jody juno kai kip lars lena lido lulu mabel mara milo "
    "mina nell nico noor odin olga otto pia pip quill rhea rico rosa rufus sami selma sven "
    "tess tilo toby uma ursa vera vito wanda wes xena yara yuri zane zita"
)
VERBS = _split(
    "Add Cache Check Clean Count Drop Export Guard Log Merge Move Name Order Parse Port Print "
    "Read Rename Retry Send Shorten Sort Split Store Test Trim Update Warn Watch Write"
)
THINGS = _split(
    "account alarm archive basket batch budget calendar chart client column contract "
    "cursor dialog digest event feed filter folder footer form graph header image index input "
    "invoice label letter limit list map menu message meter note order page panel "
    "path price queue quota receipt record report request route row rule schema "
    "score search sheet signal socket stamp stream summary table tag target task "
    "ticket timer tooltip tour unit upload vote wallet widget window"
)
ENDS = _split(
    "at start|when it is empty|on small screens|for guests|in the nightly job|after a "
    "crash|by name|by date|without a network|in the archive|twice a day|with long names|for "
    "old files|in the preview|on leap days|behind a proxy|from the import|in dark mode|per "
    "team|in two languages|under load|for exports",
    "|",
)
