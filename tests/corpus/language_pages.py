"""A page of prose in each of several languages, and one sentence in more."""

from odd_texts import OTHER, PROSE

# A page of each language that its rules keep, of about a hundred words
PAGES = {
    "en": PROSE + OTHER,
    "de": "Der Zug fährt heute nicht, und die Leute warten auf dem Bahnsteig mit den Koffern. Das wurde "
    "gestern im Ort gesagt, aber er hat es nicht gehört. In der Halle sitzt eine Frau, die von den "
    "Bergen kommt und für das Kind ein Brot holt. Als der Regen beginnt, gehen alle in das kleine Haus "
    "neben dem Gleis. Niemand weiß, wann es weitergeht, doch am Abend kommt ein Bus aus der Stadt, und "
    "man ist zufrieden.",
    "fr": "Il n'est pas venu à l'heure, et les gens du village ont attendu dans le froid. La nuit tombait sur "
    "la place, un chien passait de temps en temps. Une femme a dit que le train était resté au col, par "
    "manque de charbon. On a donc allumé un feu, et des enfants ont chanté en attendant. Plus tard, "
    "quand il est enfin arrivé, personne ne lui a rien reproché, car il apportait le courrier.",
    "sw": "Watoto wa kijiji walikwenda shule kwa miguu kila siku. Katika mwaka wa kwanza walijifunza kusoma na "
    "kuandika, na mwalimu aliwapa vitabu vya hadithi. Baada ya masomo walicheza mpira kwenye uwanja "
    "mkubwa. Jioni wazazi waliwaita nyumbani kula chakula cha usiku. Hii ni habari ya maisha yao, nayo "
    "inaonyesha jinsi elimu ilivyo muhimu kwa watu wote. Kila mtu alifurahi sana, hata mzee wa kijiji.",
    "zh": "今天早上，河边的市场还没有开门，人们已经在桥上等了很久。一个老人说，他年轻的时候"
    "每天都来这里卖鱼，后来城里修了新的道路，船就少了。孩子们听着他的故事，手里拿着母"
    "亲做的饼。太阳出来以后，商店一家一家地开了，空气中有茶和面包的味道。他们买了一些"
    "水果，也买了两本旧书，然后沿着小路慢慢走回家。",
    "th": "เช้าวันนี้ที่ริมแม่น้ำมีคนมาซื้อของกันมากมาย และเด็กๆ ก็วิ่งเล่นอยู่ในสวนของวัด "
    "ยายเล่าว่าเมื่อก่อนการเดินทางต้องใช้เรือเป็นหลัก แต่ตอนนี้ได้มีถนนใหญ่ตัดผ่านหมู่บ้านแล้ว "
    "พ่อค้าขายผลไม้กับขนมหวาน ส่วนแม่ซื้อปลาสดกลับบ้านไปทำแกงให้ทุกคนกินตอนเย็น "
    "หลังจากนั้นพวกเรานั่งฟังเสียงฝนและอ่านหนังสือด้วยกันจนดึก",
}
SENTENCES = {
    "en": "The masons worked on the bridge until the first snow fell.",
    "de": "Die Maurer arbeiteten an der Brücke, bis der erste Schnee fiel.",
    "fr": "Les maçons ont travaillé sur le pont jusqu'aux premières neiges.",
    "es": "Los albañiles trabajaron en el puente hasta la primera nevada.",
    "it": "I muratori hanno lavorato al ponte fino alla prima neve dell'inverno.",
    "sw": "Watoto wa kijiji walikwenda shule kwa miguu kila siku pamoja na mwalimu wao.",
    "tr": "Duvar ustaları ilk kar yağana kadar köprüde çalıştılar.",
    "vi": "Những người thợ xây làm việc trên cây cầu cho đến khi tuyết rơi.",
    "ru": "Каменщики работали на мосту, пока не выпал первый снег.",
    "ar": "عمل البناؤون على الجسر حتى تساقط أول الثلج في الشتاء.",
    "hi": "पहली बर्फ गिरने तक राजमिस्त्री पुल पर काम करते रहे।",
    "th": "ช่างก่อสร้างทำงานบนสะพานจนกระทั่งหิมะแรกตก",
    "zh": "石匠们一直在桥上工作，直到第一场雪落下。",
    "ja": "石工たちは初雪が降るまで橋の上で働いていました。",
    "ko": "석공들은 첫눈이 내릴 때까지 다리에서 일했다.",
}
