"""Service items of the demo city: what people do at a terminal, how often, how long it takes and what comes out of the printers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Item:
    """`weight` is the share among the items of a terminal, `minutes` the median, `pages` A4 sheets of a finished case."""

    code: str
    zh: str
    en: str
    kind: Literal["handle", "query", "book", "other"]
    weight: int
    minutes: float
    pages: int = 0
    slip: bool = False
    needs_id: bool = True


ITEMS: tuple[Item, ...] = (
    Item(
        "social-security.contribution.print",
        "社保缴费证明打印",
        "Print social-insurance contribution certificate",
        "handle",
        150,
        3,
        1,
    ),
    Item("social-security.account.query", "社保个人账户查询", "Social-insurance account", "query", 110, 2.5),
    Item("medical-insurance.record.print", "医保参保证明打印", "Print medical-insurance certificate", "handle", 90, 3, 1),
    Item("medical-insurance.balance.query", "医保账户余额查询", "Medical-insurance balance", "query", 60, 2),
    Item("real-estate.certificate.query", "不动产登记信息查询", "Real-estate register", "query", 80, 4, 1),
    Item("real-estate.no-property.print", "无房证明打印", "Print no-property certificate", "handle", 60, 4, 1),
    Item("housing-fund.detail.print", "公积金明细打印", "Print housing-fund statement", "handle", 70, 3, 2),
    Item("housing-fund.balance.query", "公积金余额查询", "Housing-fund balance", "query", 40, 2),
    Item("household.residence-permit.apply", "居住证申领", "Apply for a residence permit", "handle", 35, 7, 0, slip=True),
    Item("household.no-crime.print", "无犯罪记录证明打印", "Print criminal-record certificate", "handle", 35, 4, 1),
    Item("tax.payment.print", "完税证明打印", "Print tax-payment certificate", "handle", 45, 3.5, 1),
    Item("tax.invoice.apply", "发票代开申请", "Apply for an invoice", "handle", 15, 8, 1, slip=True),
    Item("business.licence.print", "营业执照打印", "Print business licence", "handle", 30, 4, 1),
    Item("business.registration.query", "企业登记档案查询", "Company register", "query", 25, 5, 3),
    Item("vehicle.violation.query", "交通违法查询", "Traffic violations", "query", 30, 3, 0, slip=True),
    Item("bus-card.senior.apply", "老年优待卡申请", "Apply for a senior bus card", "handle", 20, 6, 0, slip=True),
    Item("utilities.payment.query", "水电气账单查询", "Utility bills", "query", 25, 2, 0, needs_id=False),
    Item("appointment.hall.book", "大厅预约取号", "Book a hall appointment", "book", 50, 1.5, 0, slip=True, needs_id=False),
    Item("guide.procedure.view", "办事指南查询", "Procedure guides", "other", 30, 2, 0, needs_id=False),
)
BY_CODE = {item.code: item for item in ITEMS}
